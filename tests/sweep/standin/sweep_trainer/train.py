"""What the nursery imports first; the real trainer imports torch here."""
