"""What every training shares: configuration, schedule, averages, checkpoint, log, figures."""
