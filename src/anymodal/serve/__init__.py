"""The classifier as a web service: `anymodal serve`.

limits       what a request, a file and a decoder may cost
wire         items taken apart, as bytes between two processes; nothing is pickled
decoder      the program of a decoder process: it can open no file and no socket
decoding     the pool of those processes
inference    one thread that runs the networks, in batches of what is waiting
bodies       requests into files, counted while they come in
problems     what went wrong, as one line
answers      the shapes of the answers
metrics      what Prometheus reads
neighbours   the index behind `/search`
service      a request's way through all of them
app          the routes
docs_page    the page of documentation, which needs no other host
server       uvicorn, which ends gracefully
"""
