"""Maelstrom's services, which nodes can call: key-value stores and a source of timestamps.

A service has the types of the requests that it knows, and `handle(src, body)`, which returns the
body of the reply. The services answer as the real ones do (maelstrom.service), also where their
documentation promises more: see `SeqKV` and `LwwKV`.

    kv      lin-kv, seq-kv, lww-kv
    tso     lin-tso
    host    puts the services on the network of a run
"""
