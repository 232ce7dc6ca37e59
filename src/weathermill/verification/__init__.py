"""What a forecast is worth: scores against baselines, their significance, figures and reports."""
