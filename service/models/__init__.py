"""The models that are served, and how they come, change and go.

models.py     what routes ask, and the thread in which models are opened
catalogue.py  what is served, refused and open by now
served.py     one name in it; loaded.py the open model behind it; uses.py who uses which
opening.py    from a file to an open model, and what that will take
reload.py     keeps the catalogue in step with the folder; folder.py what is in that, retries.py
              when what went wrong is tried again
"""
