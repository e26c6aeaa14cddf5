"""What buckia does: reconcile a local folder with its folder in a bucket, restore, verify, look back."""
