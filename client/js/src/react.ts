import {
  type FunctionComponentElement, type ProviderProps, type ReactNode, createContext, createElement, useCallback,
  useContext, useEffect, useRef, useState, useSyncExternalStore,
} from 'react'
import {
  type ConnectionStatus, type Message, type Options, type OwnMessage, type Shoal, type UploadStatus, connect,
} from './index.js'

const Context = createContext<Shoal<any> | null>(null)
const CONNECTING: ConnectionStatus = Object.freeze({ state: 'connecting' })
const PENDING: UploadStatus<any> = Object.freeze({ state: 'pending' })
const IDLE: UploadStatus<any> = Object.freeze({ state: 'idle' })

/** ShoalProviderProps: either a client of your own, which you close yourself, or the url and options of connect(). */
export type ShoalProviderProps = { children?: ReactNode } & (
  | { client: Shoal<any> }
  | ({ client?: undefined; url: string | URL } & Options<any>)
)

/**
 * ShoalProvider gives the components in it a connection. It connects when it is mounted in the browser, never while a
 * server renders, and closes the connection when it is unmounted. The functions among its props may be new ones on each
 * rendering; another url connects again.
 */
export function ShoalProvider(props: ShoalProviderProps): FunctionComponentElement<ProviderProps<Shoal<any> | null>> {
  const [own, setOwn] = useState<Shoal<any> | null>(null)
  const [problem, setProblem] = useState<unknown>(null)
  const newest = useRef(props)
  useEffect(() => {
    newest.current = props
  })
  const { client } = props
  const url = client ? undefined : String((props as { url: string | URL }).url)
  useEffect(() => {
    if (url === undefined) return
    const options = newest.current as Options<any>
    let made: Shoal<any>
    try {
      made = connect(url, {
        ...options,
        ...(typeof options.token === 'function' && { token: (call) => (newest.current as Options<any>).token(call) }),
        onMessage: (message) => (newest.current as Options<any>).onMessage?.(message),
      })
    } catch (error) {
      setProblem(error)
      return
    }
    setOwn(made)
    return () => {
      setOwn(null)
      made.close()
    }
  }, [url])
  if (problem) throw problem // to the nearest error boundary
  return createElement(Context.Provider, { value: client ?? own }, props.children)
}

/** useShoal returns the client, or null before the provider has connected and on a server. */
export function useShoal<Own extends OwnMessage = never>(): Shoal<Own> | null {
  return useContext(Context)
}

const nothing = () => () => {}

/** useConnection returns the state of the connection, with a function that tries again at once. */
export function useConnection(): ConnectionStatus & { reconnect: () => void } {
  const shoal = useShoal()
  const status = useSyncExternalStore(
    shoal?.subscribe ? (listener) => shoal.subscribe(listener) : nothing,
    () => shoal?.status() ?? CONNECTING,
    () => CONNECTING,
  )
  return { ...status, reconnect: () => shoal?.reconnect() }
}

/**
 * useUpload follows an upload while the component is mounted, and renders on each change. An id of null follows nothing;
 * one that is not valid goes to the nearest error boundary. onMessage gets each message and each gap; the status has the
 * newest message only.
 */
export function useUpload<Own extends OwnMessage = never>(
  id: string | null | undefined, onMessage?: (message: Message<Own>) => void,
): UploadStatus<Own> {
  const shoal = useShoal<Own>()
  const callback = useRef(onMessage)
  useEffect(() => {
    callback.current = onMessage
  })
  const subscribe = useCallback((listener: () => void) => {
    if (!shoal || id == null) return () => {}
    const stop = shoal.follow(id, (message) => callback.current?.(message)) // first: it may throw
    const end = shoal.subscribe(listener, id)
    return () => {
      stop()
      end()
    }
  }, [shoal, id])
  const server = id == null ? IDLE : PENDING
  const snapshot = () => {
    const status = shoal && id != null ? shoal.status(id) : server
    return id != null && status.state === 'idle' ? PENDING : status
  }
  return useSyncExternalStore(subscribe, snapshot, () => server)
}
