"""What a forecast is worth: scores against baselines, their significance, and the figures and reports that show it."""
