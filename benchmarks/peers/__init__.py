"""The same work done by other means, to be timed beside ours."""
