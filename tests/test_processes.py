"""What tests start ends with them."""

from processes import begin, end_all


def test_what_is_left_running_is_ended_and_its_pipe_closed():
    process = begin(["sleep", "600"])
    end_all()
    assert process.returncode == -9
    assert process.stdout.closed
