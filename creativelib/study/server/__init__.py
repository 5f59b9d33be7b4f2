"""A rating study on the web, for people without Jupyter: ``creativelib study new``, ``serve``, ``export``, ``report``.

``folder`` is a study on disk, ``guard`` what keeps strangers out, ``pages`` what raters see, ``teacher`` what the teacher sees,
``app`` puts them together. It imports the study package alone: rating needs no torch.
"""
