"""Screens: results on a terminal as aligned tables with colour, one file for each capability."""
