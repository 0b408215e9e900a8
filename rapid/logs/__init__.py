"""What a function's processes print, and what rapid prints: lines, levels and formats."""
