"""What all pages for people share: base template, style sheet, script, and the text of numbers."""
