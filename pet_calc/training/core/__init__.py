"""What every training shares: schedule, averages, checkpoint, log, figures, several processes."""
