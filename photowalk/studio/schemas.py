"""What goes over the wire: requests and answers of the HTTP API, which the typed client shares. Plain values only."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Identifier = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Prompt = Annotated[str, Field(max_length=4000)]
Title = Annotated[str, Field(min_length=1, max_length=120)]
NARROWEST_DEG, WIDEST_DEG = 5.0, 150.0
FovDeg = Annotated[float, Field(ge=NARROWEST_DEG, le=WIDEST_DEG)]
Scale = Annotated[float, Field(gt=0.01, lt=100)]
Coordinate = Annotated[float, Field(ge=-1e6, le=1e6, allow_inf_nan=False)]
Sentence = Annotated[str, Field(min_length=1, max_length=4000)]

Spline = Literal["round", "straight"]
JobState = Literal["waiting", "running", "done", "failed", "cancelled", "interrupted"]
FINISHED: tuple[JobState, ...] = ("done", "failed", "cancelled")


class Value(BaseModel):
    """Frozen; unknown fields are refused, so that a misspelt option is not ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid")


# ---- orders: what a job is asked to do


class Create(Value):
    kind: Literal["create"] = "create"
    photo: str  # a name in the studio's own uploads, never the client's
    prompt: Prompt = ""
    seed: Seed = 0
    fov_deg: FovDeg | None = None


class Correct(Value):
    """The world of a photo, made anew with another lens."""

    kind: Literal["correct"] = "correct"
    fov_deg: FovDeg


class Expand(Value):
    """A prompt written from the pictures and the way; it becomes the job's message."""

    kind: Literal["expand"] = "expand"
    captioner: str
    cameras: str  # a file of the studio's own
    prompt: Prompt


class Extend(Value):
    kind: Literal["extend"] = "extend"
    path: str | None = None  # a preset or a sentence; None: finish the walk that was interrupted
    cameras: str | None = None  # a file of the studio's own, instead of a path
    after: str | None = None  # the key of the chunk that the cameras go on from
    prompt: Prompt | None = None
    seed: Seed | None = None
    steps: int | None = None


class Reconstruct(Value):
    kind: Literal["reconstruct"] = "reconstruct"


class Export(Value):
    kind: Literal["export"] = "export"
    ending: str


Order = Annotated[Create | Correct | Expand | Extend | Reconstruct | Export, Field(discriminator="kind")]


# ---- answers


class Progress(Value):
    stage: str = ""
    done: int = 0
    total: int = 0
    chunk: int = 1
    chunks: int = 1
    previews: int = 0  # how many pictures have been shown; the newest is at /jobs/{id}/preview.jpg


class Job(Value):
    id: Identifier
    user: str
    world: Identifier
    order: Order
    state: JobState
    created: float  # seconds since 1970
    place: int = 0  # in the queue: 1 is next, 0 is running or out of it
    held: bool = False  # it waits for a walk before it, which a restart interrupted, to be resumed or cancelled
    base: int | None = None  # how many chunks the world had when the walk began; None: it did not
    outdated: bool = False  # the world has changed since this walk was stopped: it cannot be resumed
    message: str = ""  # why it failed, or what was decided on the way
    progress: Progress = Progress()


class Chunk(Value):
    index: int
    first_frame: int
    frames: int
    prompt: str
    seed: int
    path: str
    notes: list[str]
    key: str  # of its frames: another one, other frames


class World(Value):
    id: Identifier
    title: str
    created: float
    ready: bool  # its photo has become a world
    parent: Identifier | None = None
    branched_at: int | None = None  # the parent's last chunk that it shares
    frames: int = 0
    height: int = 0
    width: int = 0
    chunk_frames: int = 0
    fov_deg: float = 0.0
    metres_per_unit: float = 1.0  # poses and paths in files are in units, all other lengths in metres
    reference_depth: float = 0.0  # metres
    seed: int = 0
    walked: float = 0.0  # metres
    roll_deg: float = 0.0  # of the horizon in the photo, as it was corrected
    pitch_deg: float = 0.0
    undone: int = 0  # chunks that redo can take back
    to_go: int = 0  # chunks of a walk that was interrupted
    scene_frames: int = 0  # how many frames the splats were made from
    chunks: list[Chunk] = []
    files: list[str] = []  # what can be downloaded now
    problem: str = ""  # why the world cannot be read


class WorldJob(Value):
    world: World
    job: Job


class Correction(Value):
    world: World
    job: Job | None  # none where only the horizon was turned


class Me(Value):
    user: str
    preset: str
    licence: str
    path_presets: list[str]
    exports: dict[str, str]  # by ending, what they hold
    max_upload_bytes: int
    max_chunks: int


class Pose(Value):
    """A camera: where it stands and how it is turned, world from camera, OpenCV axes."""

    position: tuple[Coordinate, Coordinate, Coordinate]
    wxyz: tuple[Coordinate, Coordinate, Coordinate, Coordinate]
    fov_deg: FovDeg | None = None  # how wide it sees; None: as the walk's last frame


class Plan(Value):
    frames: int  # new ones, whole chunks
    chunks: int
    seconds: float
    length: float  # metres
    notes: list[str]  # padding, shortening and whatever else was decided
    poses: list[Pose]  # the frame that the walk stands at, then every new one
    blocked: list[bool]  # of each pose, before it was shortened: too close to something that is known
    shortened: bool


class Expansion(Value):
    """A prompt written out: at once, or by a job, whose message it becomes."""

    prompt: str | None = None
    job: Job | None = None


class Recall(Value):
    """What the spatial memory knows of what a camera would see."""

    frames: list[int]  # that would be recalled, the best one last
    coverage: float  # share of the view that any remembered frame shows
    recalled_coverage: float  # share that the recalled frames show
    never_seen: float


class Problem(BaseModel):
    detail: str


# ---- requests


class PathRequest(Value):
    """Where to go: either `path`, a preset or a sentence, or `keyframes` to pass through."""

    path: Sentence | None = None
    keyframes: Annotated[list[Pose], Field(max_length=200)] = []
    frames: Annotated[int, Field(ge=1, le=100_000)] | None = None  # for keyframes; rounded up to whole chunks
    speed: Annotated[float, Field(ge=0.1, le=10)] = 1.0  # for keyframes without `frames`: 1 is as a person walks
    spline: Spline = "round"  # through the keyframes
    loop: bool = False  # from the last keyframe back to where the walk stands
    constant_speed: bool = False
    avoid: bool = True  # shorten what would run into something


class ExtendRequest(PathRequest):
    prompt: Prompt | None = None  # the last one when not given
    seed: Seed | None = None
    steps: Annotated[int, Field(ge=1, le=50)] | None = None  # of the sampler; more take longer


class CountRequest(Value):
    count: Annotated[int, Field(ge=1, le=10_000)] = 1


class RerollRequest(Value):
    seed: Seed | None = None  # the world's when not given


class BranchRequest(Value):
    at: Annotated[int, Field(ge=0, le=10_000)] | None = None  # the last chunk to take along; all when not given
    title: Title | None = None


class ExpandRequest(PathRequest):
    prompt: Prompt = ""  # what should be in it


class CorrectRequest(Value):
    """Corrections of what was guessed from the photo. Frames and poses stay: the metre and the vertical are what walks,
    meshes and files that are made from now on go by. Another field of view makes the photo's world anew, so it is
    refused once it has been walked."""

    scale: Scale | None = None  # all lengths are that much longer than said so far
    scale_to: Annotated[str, Field(min_length=1, max_length=200)] | None = None  # "camera height 1.6m"
    fov_deg: FovDeg | None = None
    roll_deg: Annotated[float, Field(ge=-90, le=90)] | None = None
    pitch_deg: Annotated[float, Field(ge=-89, le=89)] | None = None


class TitleRequest(Value):
    title: Title


class ExportRequest(Value):
    ending: Annotated[str, Field(pattern=r"^(\.[a-z0-9]{2,8}){1,2}$")]
