// Runs a command with an Azure Blob Storage on this machine, which forgets everything at the end: STORE_URL names a container of it.
// node with_azurite.mjs COMMAND [ARGUMENT...]
import { spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { BlobServiceClient, StorageSharedKeyCredential } from "@azure/storage-blob";

const LISTENS = /successfully listens on (http:\S+)/;
// Azurite's own, in its documentation.
const account = "devstoreaccount1";
const key = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";
const program = new URL("node_modules/azurite/dist/src/blob/main.js", import.meta.url).pathname;
const options = ["--blobHost", "127.0.0.1", "--blobPort", "0", "--inMemoryPersistence", "--disableTelemetry", "--skipApiVersionCheck"];
const azurite = spawn(process.execPath, [program, ...options], { stdio: ["ignore", "pipe", "inherit"] });
const address = await new Promise((found, failed) => {
  azurite.on("exit", (code) => failed(new Error(`azurite ended with ${code}`)));
  setTimeout(() => failed(new Error("azurite did not say where it listens")), 60_000).unref();
  createInterface(azurite.stdout).on("line", (line) => {
    const listens = LISTENS.exec(line);
    if (listens) found(new URL(listens[1]).origin);
  });
});
const endpoint = `${address}/${account}`;
const service = new BlobServiceClient(endpoint, new StorageSharedKeyCredential(account, key));
await service.createContainer("container");
const environment = {
  AZURE_STORAGE_ACCOUNT_NAME: account,
  AZURE_STORAGE_ACCOUNT_KEY: key,
  AZURE_STORAGE_ENDPOINT: endpoint,
  STORE_URL: "az://container/databases",
};
const [command, ...rest] = process.argv.slice(2);
const child = spawn(command, rest, { stdio: "inherit", env: { ...process.env, ...environment } });
const code = await new Promise((ended) => child.on("exit", (code) => ended(code ?? 1)));
azurite.removeAllListeners("exit");
const closed = new Promise((ended) => azurite.on("exit", ended));
azurite.kill();
await closed;
process.exit(code);
