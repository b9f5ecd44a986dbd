"""The classifier as a web service: `anymodal serve`.

app        the routes; `service` takes a request from files to answers
limits     what a request, a file and a decoder may use; `budget` bounds the memory of all requests
bodies     requests into files, counted while they are received
decoding   a pool of decoder processes (`decoder`), which can open no file and no socket
inference  one thread that runs the networks on batches of what is waiting
"""
