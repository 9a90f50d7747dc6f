// js-libp2p expects what newer versions of Node.js have; with these two it runs on version 20.
import { WebSocket } from 'undici'

Promise.withResolvers ??= function withResolvers () {
  const deferred = {}
  deferred.promise = new Promise((resolve, reject) => Object.assign(deferred, { resolve, reject }))
  return deferred
}

globalThis.WebSocket ??= WebSocket
