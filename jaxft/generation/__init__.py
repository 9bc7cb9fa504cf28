"""TEMPORARY greedy generation by the lead so that runs work today; the generation engineer replaces this package."""
import functools
import jax, jax.numpy as jnp, numpy as np
BUCKETS=(32,64,96,128,192,256,320,384,512,768,1024,1536,2048)
def _split(tree):
    if isinstance(tree,tuple):
        return tuple(jax.tree.map(lambda l,i=i:l[i:i+1],s) for s in tree for i in range(jax.tree.leaves(s)[0].shape[0]))
    return {k:_split(v) for k,v in tree.items()} if isinstance(tree,dict) else tree
@functools.partial(jax.jit,static_argnums=(0,3,4))
def _run(arch,variables,batch,new,eos):
    variables=_split(dict(variables))
    hidden,cache=arch.prefill(variables,batch,new)
    last=jnp.maximum(batch["segments"].astype(jnp.int32).sum(1)-1,0)
    h=jnp.take_along_axis(hidden,last[:,None,None],axis=1)
    B=h.shape[0]
    pick=lambda h: jnp.argmax(arch.head(variables,h)[:,-1],-1).astype(jnp.int32)
    tok=pick(h); out=jnp.zeros((B,new),jnp.int32); done=jnp.zeros(B,bool)
    is_eos=lambda t: jnp.isin(t,jnp.array(eos))
    def cond(s): return (s[0]<new)&~s[3].all()
    def body(s):
        i,tok,out,done,cache=s
        out=out.at[:,i].set(jnp.where(done,eos[0],tok)); done=done|is_eos(tok)
        h,cache=arch.decode(variables,tok[:,None],cache)
        return i+1,pick(h),out,done,cache
    i,_,out,done,_=jax.lax.while_loop(cond,body,(0,tok,out,done,cache))
    return out,i
def generate(model,variables,prompts,*,max_new_tokens=64,batch_size=16,num_beams=1,key=None,return_tokens=False,**ignored):
    c=model.config; enc=hasattr(c,"decoder_start_token_id")
    ids=[list(model.tokenizer(p).input_ids) if isinstance(p,str) else list(p) for p in prompts]
    order=sorted(range(len(ids)),key=lambda i:len(ids[i])); res=[None]*len(ids)
    for s in range(0,len(order),batch_size):
        rows=order[s:s+batch_size]; T=next(b for b in BUCKETS if b>=max(len(ids[i]) for i in rows))
        tok=np.zeros((batch_size,T),np.int32); seg=np.zeros_like(tok)
        for r,i in enumerate(rows): tok[r,:len(ids[i])]=ids[i]; seg[r,:len(ids[i])]=1
        seg[len(rows):,0]=1
        pos=np.where(seg>0,np.arange(T),0).astype(np.int32)
        if enc:
            st=np.full((batch_size,1),c.decoder_start_token_id,np.int32)
            b=dict(tokens=st,segments=np.ones_like(st),positions=np.zeros_like(st),encoder_tokens=tok,encoder_segments=seg,encoder_positions=pos)
        else: b=dict(tokens=tok,segments=seg,positions=pos)
        out,n=_run(model.architecture,variables,b,max_new_tokens,tuple(c.eos_token_ids))
        out=np.asarray(out)[:, :int(n)]
        for r,i in enumerate(rows):
            o=out[r].tolist(); stop=next((k for k,t in enumerate(o) if t in c.eos_token_ids),len(o)); res[i]=o[:stop]
    return res if return_tokens else [model.tokenizer.decode(o,skip_special_tokens=True) for o in res]
def log_likelihood(*a,**k): raise RuntimeError("not there yet")
