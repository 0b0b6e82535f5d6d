"""Thousands of mixed requests to one server, and what they leave behind.

cases.py   the requests, and what must come of each
client.py  sends one, and says what was wrong with what came
"""
