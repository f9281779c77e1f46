"""S3: bucket policies are kept, and judged elsewhere.

moto denies what a bucket policy denies without a look at its conditions or principals, so that the usual
"deny all that is not HTTPS" closes the bucket for good. Who may do what is judged by the data plane.
"""

from __future__ import annotations

from moto.iam.access_control import PermissionResult
from moto.s3.models import FakeBucket

from modelstacks.cloud.account.additions import Additions


def _install() -> None:
    """Change moto's S3."""

    def undecided(_self: FakeBucket, _action: str, _resource: str) -> PermissionResult:
        return PermissionResult.NEUTRAL

    FakeBucket.get_permission = undecided


#: Bodies are large and objects independent.
ADDITIONS = Additions(install=_install, in_parallel=("s3",))
