"""What the hospital permits: every order passes here first. A study may ask for less than the caps, never for more."""

from __future__ import annotations

from dataclasses import replace

from client.errors import NotPermitted
from client.site import Policy, SiteSettings
from tasks.wire import EvaluateOrder, PrivacyTerms, TrainOrder


def permit(order: TrainOrder | EvaluateOrder, site: SiteSettings) -> PrivacyTerms:
    """The privacy terms under which the hospital answers: the stricter of request and caps.

    Raises:
        NotPermitted: with every reason.
    """
    policy = site.policy
    reasons = list(_objections(order, policy))
    if reasons:
        raise NotPermitted(f"order of study {order.study}, round {order.round}: " + "; ".join(reasons))
    asked = order.privacy
    epsilon = None if asked.epsilon is None else min(asked.epsilon, policy.max_epsilon_study)
    return replace(asked, epsilon=epsilon, delta=min(asked.delta, policy.max_delta))


def _objections(order: TrainOrder | EvaluateOrder, policy: Policy) -> list[str]:
    found = []
    if order.task not in policy.tasks:
        found.append(f"task {order.task!r} is not among policy.tasks ({', '.join(policy.tasks)})")
    without_noise = order.privacy.epsilon is None
    if isinstance(order, TrainOrder):
        if order.training.steps > policy.max_steps:
            found.append(f"{order.training.steps} steps a round, policy.max_steps is {policy.max_steps}")
        if order.round > order.rounds:
            found.append(f"round {order.round} of {order.rounds}")
        if without_noise and not policy.without_privacy:
            found.append("asks for training without privacy, policy.without_privacy is false")
    elif without_noise and not policy.exact_scores:
        found.append("asks for exact scores, policy.exact_scores is false")
    return found
