"""What another policy would have earned, judged from logged episodes alone; silent where the log cannot say."""
