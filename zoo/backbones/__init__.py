"""Classification networks of timm, cut at any named layer.

:mod:`.table` says where each network of the paper can be cut, and imports no torch; its
``find_backbone`` also looks at any other network of timm.
"""
