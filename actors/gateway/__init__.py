"""The gateway: other people's agent programs as actors; every call of the model is kept."""
