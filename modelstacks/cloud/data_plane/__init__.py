"""The embedded cloud's data plane: real requests, through hops that refuse for the reasons AWS would.

read_back.py makes a Topology of the account; hops/ decide, purely, what may pass; the other rooms carry it.
"""
