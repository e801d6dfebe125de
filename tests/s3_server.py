"""An S3 server on this machine."""


class S3Server:
    """moto's server, on a free port.

    Attributes:
        bucket: The name of a bucket of this server alone.
        environment: The variables that lead clients to it.
    """

    def __init__(self) -> None:
        from moto.server import ThreadedMotoServer  # noqa: PLC0415 - most tests need none of it

        self._server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
        self._server.start()
        host, port = self._server.get_host_and_port()
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
        self._server.stop()
