"""What clients of model servers share."""
