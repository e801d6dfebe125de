"""An S3 server on this machine."""

from threading import Thread


class S3Server:
    """moto's server, on a free port.

    Attributes:
        bucket: The name of a bucket of this server alone.
        environment: The variables that lead clients to it.
    """

    def __init__(self) -> None:
        # Most tests need none of it.
        from moto.moto_server.werkzeug_app import (  # noqa: PLC0415
            DomainDispatcherApplication,
            MotoRequestHandler,
            create_backend_app,
        )
        from werkzeug.serving import make_server  # noqa: PLC0415

        class Requests(MotoRequestHandler):
            # Else a body waits until the headers are acknowledged, for 40 ms.
            disable_nagle_algorithm = True

        # As moto's own ThreadedMotoServer, whose end takes up to half a second.
        application = DomainDispatcherApplication(create_backend_app)
        self._server = make_server(
            "127.0.0.1", 0, application, threaded=True, request_handler=Requests
        )
        self._thread = Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        host, port = self._server.server_address[:2]
        self.bucket = f"bucket-{port}"
        self.environment = {
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_MAX_ATTEMPTS": "1",
        }

    def create_bucket(self) -> None:
        """Create the bucket, once the environment has the variables."""
        import fsspec  # noqa: PLC0415 - as above

        stores = fsspec.get_filesystem_class("s3")
        stores.clear_instance_cache()
        stores().mkdir(self.bucket)

    def stop(self) -> None:
        """Stop answering. Safe to call twice."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
