"""What brings tasks in: each gateway translates an outside protocol to the task service, and back."""
