"""Results in MLflow. Nothing else imports MLflow."""
