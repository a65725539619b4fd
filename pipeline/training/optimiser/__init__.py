"""What turns gradients into better weights: parameter groups, schedules, averages."""
