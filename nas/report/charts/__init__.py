"""Every chart of a run as data: what the report's page, ``nas.plots`` and SVG files draw.

A chart is built once, by one function, as a :class:`nas.report.charts.spec.Drawing`: marks with
points and intervals, axes with titles, units and scales, roles that fix colour and shape, what is
told of a mark, and the row it stands for. Nothing here draws.
"""
