"""Images decoded in processes of their own, which can be killed.

A decoder in a thread cannot be stopped, and takes the server with it when it crashes. Here it is a
child that has one image at a time, and neither the time nor the memory to do harm:

    Decoders   all children: whose turn it is, and who replaces whom
    Decoder    one child, seen from its parent
       |       a socket: a line of JSON and the file down, a line of JSON up
       |       shared memory: the pixels
    worker     the child itself

A child has read hostile files, so it is not believed: its answer is one of a few words, and the
memory that it filled is sealed before it is looked at.
"""
