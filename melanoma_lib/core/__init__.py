"""What every room rests on: files, errors, locks, the environment, progress."""
