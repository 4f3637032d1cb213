"""Runs a command with an S3 in this process: STORE_URL names a bucket of it. with_s3.py COMMAND [ARGUMENT...]"""
import logging
import os
import subprocess
import sys
import urllib.request

from moto.server import ThreadedMotoServer

logging.getLogger("werkzeug").setLevel(logging.ERROR)
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
host, port = server.get_host_and_port()
endpoint = f"http://{host}:{port}"
urllib.request.urlopen(urllib.request.Request(f"{endpoint}/bucket", method="PUT"))
environment = {
    "AWS_ACCESS_KEY_ID": "key",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_REGION": "us-east-1",
    "AWS_ENDPOINT_URL": endpoint,
    "STORE_URL": "s3://bucket/databases",
}
result = subprocess.run(sys.argv[1:], env=os.environ | environment)
server.stop()
sys.exit(result.returncode)
