// Sends one task to a peertask node and prints what the node answers, one line of JSON for each frame.
// Usage: node client.js ADDRESS KIND < PROMPT
// Written from docs/reference/protocol.md alone, as a simple client: no Hello, one Submit, then read until the end.
import './polyfill.js'
import { randomUUID } from 'node:crypto'
import { text } from 'node:stream/consumers'
import { noise } from '@chainsafe/libp2p-noise'
import { yamux } from '@chainsafe/libp2p-yamux'
import { circuitRelayTransport } from '@libp2p/circuit-relay-v2'
import { identify } from '@libp2p/identify'
import { tcp } from '@libp2p/tcp'
import { lpStream } from '@libp2p/utils'
import { webSockets } from '@libp2p/websockets'
import { decode, encode } from '@msgpack/msgpack'
import { multiaddr } from '@multiformats/multiaddr'
import { createLibp2p } from 'libp2p'

const PROTOCOL = '/peertask/1.0.0'
const MAX_FRAME_BYTES = 1_048_576
const CHUNK_BYTES = 262_144

async function writeFrame (stream, frame) {
  const body = encode(frame)
  if (body.length <= CHUNK_BYTES) {
    return stream.write(body)
  }
  for (let start = 0; start < body.length; start += CHUNK_BYTES) {
    const end = start + CHUNK_BYTES
    await stream.write(encode({ type: 'chunk', data: body.subarray(start, end), last: end >= body.length }))
  }
}

async function readFrame (stream) {
  const pieces = []
  while (true) {
    const frame = decode((await stream.read()).subarray())
    if (frame.type !== 'chunk') {
      return frame
    }
    pieces.push(frame.data)
    if (frame.last) {
      return decode(Buffer.concat(pieces))
    }
  }
}

const [address, kind] = process.argv.slice(2)
const prompt = await text(process.stdin)

const client = await createLibp2p({
  transports: [tcp(), webSockets(), circuitRelayTransport()],
  connectionEncrypters: [noise()],
  streamMuxers: [yamux()],
  services: { identify: identify() }
})
const opened = await client.dialProtocol(multiaddr(address), PROTOCOL, { runOnLimitedConnection: true })
const stream = lpStream(opened, { maxDataLength: MAX_FRAME_BYTES })

await writeFrame(stream, {
  type: 'submit',
  task: { id: randomUUID(), kind, prompt, sender: client.peerId.toString(), timestamp: Date.now() }
})

let frame
do {
  frame = await readFrame(stream)
  console.log(JSON.stringify(frame))
} while (frame.type === 'accept' || frame.type === 'progress')

await client.stop()
