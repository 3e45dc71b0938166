"""The search: replica exchange in columns that processes share, and all that it paid for as one."""
