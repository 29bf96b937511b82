#!/bin/sh
# The first process of a host of the lab: gives it a home, /tmp, shared memory and names of its own, then becomes sshd.
# host.sh FOLDER VISIBLE...: the host's folder; paths that all hosts see, wherever they lie.
set -e
folder=$1
shift
mount --make-rprivate /
hostname "$(basename "$folder")"
mount -t tmpfs -o size=2g tmpfs /dev/shm
for path in "$@"; do # what lies in the home folder or /tmp would be hidden by those of the host
    case $path in
    "$HOME"/*) inner=$folder/home/${path#"$HOME"/} ;;
    /tmp/*) inner=$folder/tmp/${path#/tmp/} ;;
    *) continue ;;
    esac
    mkdir -p "$inner"
    mount --bind "$path" "$inner"
done
mount --rbind "$folder/home" "$HOME"
mount --rbind "$folder/tmp" /tmp
mount --bind "$folder/hosts" /etc/hosts
mount --bind "$folder/resolv.conf" /etc/resolv.conf
mount -t tmpfs tmpfs /run
mkdir -p /run/sshd
exec /usr/sbin/sshd -D -e -f "$folder/sshd_config"
