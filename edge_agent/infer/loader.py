"""Gets policies ready beside the tick and hands them over by one reference; answers comms when they drive.

A refused candidate leaves the running policy as it is. Accepted is who has passed its trial (``infer.trial``).
"""

import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path

import msgspec

from contracts.bundle import VerifiedBundle, verify_bundle
from contracts.errors import BundleCounterTooLowError, ContractError
from contracts.keyring import TRUSTED_FILE
from contracts.observation import ROUTING_LAYOUT
from contracts.provenance import TrustedKeys
from contracts.robot import RobotModel
from edge_agent.errors import AgentError, PolicyRejectedError, SlotError
from edge_agent.infer.dropped import DroppedStore
from edge_agent.infer.ladder import Ladder
from edge_agent.infer.policy import Policy, load_policy
from edge_agent.infer.starts import StartStore
from edge_agent.infer.trial import Stage, Trial
from edge_agent.update.mailbox import Candidate, ControlMailbox
from edge_agent.update.slots import SlotEntry, SlotStore

POLL_S = 0.1
TRIAL_POLL_S = 0.02
REQUESTS_MAX = 4
JOIN_MAX_S = 10.0


class LoadRequest(msgspec.Struct):
    """Someone's wish to run the bundle at ``path``; answered when ``done``."""

    path: Path
    done: bool = False
    accepted: bool = False
    digest: str = ""
    message: str = ""


class PolicyLoader:
    """One background thread. ``tell`` takes events in words for the log and the policy status.

    Args:
        state_dir: the robot's state folder.
        keys: the robot's own key folder.
        model: what the policy must be for.
        monitor_hash: the monitor that the policy must have been trained behind.
        ladder: takes the policies.
    """

    def __init__(
        self,
        state_dir: Path,
        keys: Path,
        model: RobotModel,
        monitor_hash: str,
        ladder: Ladder,
        tell: Callable[[str], None],
    ) -> None:
        self._slots, self._mailbox = SlotStore(state_dir), ControlMailbox(state_dir)
        self._keys, self._model, self._monitor_hash = keys, model, monitor_hash
        self._ladder, self._tell = ladder, tell
        self._dropped, self._starts = DroppedStore(state_dir, tell), StartStore(state_dir, tell)
        self._requests: deque[LoadRequest] = deque()
        self._wake = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="loader", daemon=True)

    def load_committed(self) -> None:
        """Put the committed policy on the ladder, else the one before it, else none. Before any tick."""
        loaded = [policy for entry in self._entries() if (policy := self._load_entry(entry))]
        self._ladder.policy = loaded[0] if loaded else None
        self._ladder.previous = loaded[1] if len(loaded) > 1 else None

    def start(self) -> None:
        """Begin to look for candidates."""
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._stopping = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(JOIN_MAX_S)

    def request(self, path: Path) -> LoadRequest:
        """Ask for the bundle at ``path``; look at ``done`` later."""
        request = LoadRequest(path)
        if len(self._requests) >= REQUESTS_MAX:
            request.message, request.done = "other policies are being loaded; try again later", True
            return request
        self._requests.append(request)
        self._wake.set()
        return request

    def verify(self, path: Path) -> VerifiedBundle:
        """Every check of a bundle, the monitor's hash among them; raises BundleError or KeyFileError."""
        trusted = TrustedKeys.load(self._keys / TRUSTED_FILE)
        return verify_bundle(path, trusted, ROUTING_LAYOUT.hash(), self._model, self._monitor_hash)

    def _entries(self) -> list[SlotEntry]:
        try:
            found = (self._slots.active(), self._slots.previous())
        except SlotError as error:
            self._tell(f"no committed policy: {error}")
            return []
        return [entry for entry in found if entry]

    def _load_entry(self, entry: SlotEntry) -> Policy | None:
        if why := self._dropped.why(entry.digest):
            version = entry.facts.version
            self._tell(f"committed policy {version} is not used: {why}; release another, or load it by hand")
            return None
        try:
            bundle = self.verify(Path(entry.path))
            if bundle.digest != entry.digest:
                raise SlotError(f"slot {entry.slot} holds {bundle.digest[:12]}, expected {entry.digest[:12]}")
            return self._load(bundle, committed=True)
        except (AgentError, ContractError, OSError) as error:
            self._tell(f"committed policy {entry.facts.version} is not used: {error}")
            return None

    def _load(self, bundle: VerifiedBundle, committed: bool = False) -> Policy:
        """A policy ready to be asked; until ``_starts.end`` the end of this process would be a candidate's doing."""
        digest = bundle.digest
        try:
            why = self._starts.begin(digest)
        except OSError as error:
            why = f"its start cannot be noted ({error.strerror}); free some space"
            if not committed:
                raise PolicyRejectedError(why) from None
            self._tell(why)
        else:
            if why:
                self._dropped.add(digest, bundle.manifest.version, why)
                self._starts.end(digest)
                raise PolicyRejectedError(why)
        try:
            policy = load_policy(bundle)
        except Exception:
            self._starts.end(digest)
            raise
        if committed:
            self._starts.end(digest)
        return policy

    def _run(self) -> None:
        while not self._stopping:
            self._wake.wait(POLL_S)
            self._wake.clear()
            self._keep_dropped()
            while self._requests and not self._stopping:
                self._serve(self._requests.popleft())
            candidate = self._mailbox.poll()
            if candidate is not None and not self._stopping:
                self._consider(candidate)

    def _keep_dropped(self) -> None:
        """Remember whom the ladder has dropped."""
        dropped = self._ladder.dropped
        while dropped:
            policy, why = dropped.popleft()
            self._dropped.add(policy.digest, policy.version, why)

    def _consider(self, candidate: Candidate) -> None:
        version = candidate.entry.facts.version
        if candidate.kind == "revert":
            self._ladder.leave(candidate.digest)
            self._answer(candidate, True)
            return
        try:
            if why := self._dropped.why(candidate.digest):
                raise PolicyRejectedError(f"it has failed on this robot ({why}); release another")
            bundle = self.verify(candidate.path)
            if bundle.digest != candidate.digest:
                raise SlotError(f"expected bundle {candidate.digest[:12]}, came {bundle.digest[:12]}")
            policy = self._load(bundle)
        except Exception as error:
            # Also what nobody foresaw must be an answer: comms waits for one, and the running policy stays.
            self._tell(f"candidate {version} refused: {error}")
            self._answer(candidate, False, str(error) or repr(error))
            return
        trial = self._try(policy, candidate.shadow_s)
        if trial is not None and trial.stage is Stage.PASSED:
            self._tell(f"policy {version} accepted: {trial.detail}")
            self._answer(candidate, True)
        elif trial is not None:
            self._tell(f"candidate {version} refused: {trial.why}")
            self._answer(candidate, False, trial.why)

    def _serve(self, request: LoadRequest) -> None:
        try:
            bundle = self.verify(request.path)
            request.digest = bundle.digest
            name, counter = bundle.manifest.policy_name, bundle.manifest.release_counter
            floor = self._slots.counter_floor(name)
            if counter < floor:
                raise BundleCounterTooLowError(
                    f"this robot has accepted release counter {floor} of {name}, came {counter}"
                )
            self._starts.end(bundle.digest)
            policy = self._load(bundle)
            self._dropped.forget(bundle.digest)
        except Exception as error:
            request.message = str(error) or repr(error)
            self._tell(f"{request.path.name} refused: {request.message}")
        else:
            trial = self._try(policy)
            if trial is None:
                request.message = "the agent is ending"
            elif trial.stage is Stage.PASSED:
                request.accepted = True
                request.message = (
                    f"policy {policy.version} drives until this agent restarts; release it to keep it"
                )
                self._tell(f"policy {policy.version} accepted, loaded by hand: {trial.detail}")
            else:
                request.message = trial.why
                self._tell(f"{request.path.name} refused: {trial.why}")
        request.done = True

    def _try(self, policy: Policy, shadow_s: float = 0.0) -> Trial | None:
        """Offer the policy to the control thread and wait for the end of its trial; None at the agent's end."""
        trial = self._ladder.offer(policy, shadow_s)
        while not trial.over and not self._stopping:
            self._wake.wait(TRIAL_POLL_S)
            # Whoever wakes us for another request must wait for the end of this trial.
            self._wake.clear()
        if trial.stage is Stage.REFUSED:
            self._dropped.add(policy.digest, policy.version, trial.why)
        self._starts.end(policy.digest)
        return trial if trial.over else None

    def _answer(self, candidate: Candidate, accepted: bool, reason: str = "") -> None:
        try:
            self._mailbox.answer(candidate, accepted, reason)
        except OSError as error:
            self._tell(f"cannot answer comms: {error.strerror}; free some space")
