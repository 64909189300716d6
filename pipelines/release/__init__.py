"""The release job: kept clips, their captions and reference voices become a published dataset."""
