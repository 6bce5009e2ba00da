"""Common mistakes of every page as learners would write them: exercise -> list of (mistake's name, function)."""

from learners import p01, p02, p03, p04, p05, p06, p07, p08, p09, p10, p11, p12, p13, p14, p15, p15_facts, p16

PAGES = (p01, p02, p03, p04, p05, p06, p07, p08, p09, p10, p11, p12, p13, p14, p15, p15_facts, p16)
LEARNERS = {name: wrongs for page in PAGES for name, wrongs in page.LEARNERS.items()}
