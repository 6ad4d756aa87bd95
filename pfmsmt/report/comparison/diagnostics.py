"""The pictures that explain a run: who agrees with whom, who listens to whom, and how that went over the rounds."""

from pfmsmt.report.comparison.course import course_picture
from pfmsmt.report.comparison.results import Diagnostics, Results
from pfmsmt.report.drawing import Picture
from pfmsmt.report.matrices import cosine_picture, listening_picture


def diagnostic_pictures(name: str, diagnostics: Diagnostics) -> tuple[Picture, ...]:
    """Draw `listening-<name>`, `cosine-<name>` and `course-<name>`."""
    draw = (listening_picture, cosine_picture, course_picture)
    return tuple(picture(name, diagnostics) for picture in draw)


def method_pictures(results: Results) -> tuple[Picture, ...]:
    """Draw the pictures of each method that mixes clients, for the lowest seed that has diagnostics."""
    pictures: list[Picture] = []
    for method in results.methods:
        held = [run.diagnostics for run in results.of(method) if run.diagnostics is not None]
        if held:
            pictures += diagnostic_pictures(method, held[0])
    return tuple(pictures)
