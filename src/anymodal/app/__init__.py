"""The web page: `anymodal app`.

joint_map    the joint space in two dimensions
label_layout names of classes on it, where they do not cover each other
previews     sounds and pictures as `data:` addresses
media_folder the media of the training clips, and nothing outside their folder
reason       the training clips nearest to an item
colours      one of each class, apart for all common forms of colour blindness
answer_view, timeline_view, reason_view, map_view, words
             what is shown, as HTML
page         the page itself, of Gradio's parts
security     headers: a browser refuses whatever is not of this server
server       starts and ends it
"""
