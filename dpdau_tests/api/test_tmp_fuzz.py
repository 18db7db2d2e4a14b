from collections import Counter
from dpdau_tests.api.test_fuzz import *
import time
C=Counter()
@settings(CAREFULLY, max_examples=1500)
@given(sent=sendings(bodies(event_texts, "event", "events")))
def test_e(fuzzed, sent):
    s=fuzzed.ask("/event", sent, events_taken); C["e",s]+=1
    if s==202: C["e202", len(fuzzed.taken.users)>0]+=1
@settings(CAREFULLY, max_examples=600)
@given(sent=sendings(bodies(erasure_texts, "erasure", "erasures")))
def test_r(fuzzed, sent):
    s=fuzzed.ask("/erasure", sent, erasures_taken); C["r",s]+=1
def test_z(): print(C)
