"""What a model is worth: metrics, reports, and where its knowledge comes from."""
