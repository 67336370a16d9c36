"""What do the forms of an upsampling cost? Times, memory and errors of layers, models and training steps."""
