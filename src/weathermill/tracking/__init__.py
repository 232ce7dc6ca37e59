"""The record of every run, in MLflow."""
