"""The run as one self-contained HTML page (`page.write_page`)."""
