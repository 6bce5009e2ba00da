"""For instructors: editions, the site, live demonstrations, slides, courses for nbgrader."""
