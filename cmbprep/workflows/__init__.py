"""Workflows: graphs of nodes, made by factories from plain values."""
