"""Reviews of releases that did not ask for a name are kept, and go down as what those releases understand."""

from __future__ import annotations

import threading

from sqlalchemy import select, text

from illume_db.migrate import downgrade, upgrade
from illume_db.reviews import NewReview, num_reviewed, put_review, take_back_review, verdicts_of_people
from illume_db.sessions import open_engine, transaction
from illume_db.tables import Assessment, Review
from tests.integration.db.test_revision_0003 import fill

OLD = (
    "INSERT INTO assessments (sample_id, assessor, state, score, failed_criteria, details)"
    ' VALUES (1, \'human\', \'ok\', 0.0, \'["color"]\', \'{"criteria": {"color": false}, "comment": "it is blue"}\')'
)


def test_old_reviews_get_an_unknown_reviewer_and_differing_ones_are_not_taken_for_no(empty_url: str) -> None:
    upgrade(empty_url, "0002")
    engine = open_engine(empty_url)
    with engine.begin() as connection:
        fill(connection)
    upgrade(empty_url, "0007")
    with engine.begin() as connection:
        connection.execute(text(OLD))
    upgrade(empty_url)
    with transaction(engine) as session:
        (kept,) = session.scalars(select(Review))
        assert (kept.sample_id, kept.reviewer, kept.verdict) == (1, "unknown", "disagree")
        assert (kept.criteria, kept.comment, kept.reason) == ({"color": False}, "it is blue", "chosen")
        assert put_review(session, 1, NewReview("ann", "agree"), replace=False)
        assert not put_review(session, 1, NewReview("ann", "disagree"), replace=False)
        (said,) = session.scalars(select(Assessment).where(Assessment.assessor == "human"))
        assert (said.state, said.score) == ("abstained", None)
        assert put_review(session, 2, NewReview("ann", "skip"), replace=False)
        assert num_reviewed(session, 1) == 1
        assert verdicts_of_people(session, 1) == {}
    downgrade(empty_url, "0007")
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM assessments WHERE assessor = 'human'")) == 0
    upgrade(empty_url)
    engine.dispose()


def test_taking_back_goes_review_by_review_and_settles_what_is_left(empty_url: str) -> None:
    upgrade(empty_url, "0002")
    engine = open_engine(empty_url)
    with engine.begin() as connection:
        fill(connection)
    upgrade(empty_url)
    with transaction(engine) as session:
        for sample, name, verdict in ((1, "ann", "agree"), (1, "bob", "disagree"), (2, "bob", "agree")):
            assert put_review(session, sample, NewReview(name, verdict), replace=False)
        assert verdicts_of_people(session, 1).keys() == {2}
        assert take_back_review(session, 1, "bob") == 2
        assert verdicts_of_people(session, 1).keys() == set()
        assert take_back_review(session, 1, "bob") == 1
        assert verdicts_of_people(session, 1)[1].agrees
        assert take_back_review(session, 1, "bob") is None
    engine.dispose()


def test_two_people_who_decide_at_once_are_both_heard(empty_url: str) -> None:
    """The second one waits for the first, instead of settling the sample without them."""
    upgrade(empty_url, "0002")
    engine = open_engine(empty_url)
    with engine.begin() as connection:
        fill(connection)
    upgrade(empty_url)

    def disagree() -> None:
        with transaction(engine) as session:
            put_review(session, 1, NewReview("bob", "disagree"), replace=False)

    second = threading.Thread(target=disagree, daemon=True)
    with transaction(engine) as session:
        put_review(session, 1, NewReview("ann", "agree"), replace=False)
        second.start()
        second.join(0.2)
        assert second.is_alive()
    second.join(60)
    with transaction(engine) as session:
        (said,) = session.scalars(select(Assessment).where(Assessment.assessor == "human"))
        assert said.state == "abstained"
        assert num_reviewed(session, 1) == 1
    engine.dispose()
